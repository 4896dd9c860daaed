include { word } from '../shell'
include { words } from '../shell'

// The union of the callers' alleles, each as a row of fixed public features. Without reads (`bam` []) those that
// need them are missing; `frequencies` is a normalised VCF with INFO/AF, or []. The pseudonyms come in by standard input,
// as JSON: a script that held them beside the sample's name would undo them wherever scripts are shown (ps, Tower).
process ENCODE_VARIANTS {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), '-', path(bam), path(bai), val(callers), path(vcfs), path(indices)
    tuple path(fasta), path(fai), path(dict)
    tuple path(frequencies), path(frequencies_index)

    output:
    tuple val(meta), path("${meta.id}.variants.parquet"), emit: variants
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def calls = [callers, vcfs instanceof List ? vcfs : [vcfs]].transpose().collect { caller, vcf -> "--calls ${word(caller)}=${vcf}" }.join(' ')
    def reads = bam ? "--bam ${bam}" : ''
    def resource = frequencies ? "--frequencies ${frequencies}" : ''
    """
    cat > pseudonyms.json
    encode_variants.py \\
        --site ${word(meta.site)} --sample ${word(meta.id)} --pseudonyms pseudonyms.json \\
        --reference ${fasta} ${reads} ${calls} ${resource} ${args} --output ${word("${meta.id}.variants.parquet")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${meta.id}.variants.parquet")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
