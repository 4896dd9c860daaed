include { word } from '../shell'
include { words } from '../shell'

// Real or false: by the sample's truth set inside its confident regions, or where there is none ([]) by
// public VCFs of known alleles. Names as in NORMALISE_READS.
process LABEL_VARIANTS {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(variants), '-', path(truth, stageAs: 'given/truth'), path(confident, stageAs: 'given/confident')
    tuple path(fasta), path(fai), path(dict)
    tuple path(known), path(known_indices)
    path aliases
    val private_errors

    output:
    tuple val(meta), path("${meta.id}.labelled.parquet"), emit: variants
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def sites = (known instanceof List ? known : [known]).collect { vcf -> "--known_sites ${vcf}" }.join(' ')
    def by = truth ? "--truth ${truth} --confident ${confident}" : sites
    def kept = private_errors ? "--private_errors ${word("${private_errors}/label_variants.${meta.id}.txt")}" : ''
    """
    cat > given.json
    label_variants.py \\
        --variants ${variants} --sample ${word(meta.id)} --given given.json --reference ${fasta} ${renamed} ${by} ${kept} ${args} \\
        --output ${word("${meta.id}.labelled.parquet")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${meta.id}.labelled.parquet")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
