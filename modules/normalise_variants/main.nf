include { word } from '../shell'
include { words } from '../shell'

// One biallelic, left-aligned record for each allele that the caller saw in the sample. Names as in NORMALISE_READS.
process NORMALISE_VARIANTS {
    tag "${meta.id} ${caller}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), val(caller), '-', path(vcf, stageAs: 'given/calls')
    tuple path(fasta), path(fai), path(dict)
    path aliases
    val private_errors

    output:
    tuple val(meta), val(caller), path("${meta.id}.${caller}.normalised.vcf.gz"), path("${meta.id}.${caller}.normalised.vcf.gz.tbi"), emit: calls
    tuple val(meta), val(caller), path("${meta.id}.${caller}.summary.json"), emit: summary
    tuple val(meta), val(caller), path("${meta.id}.${caller}.stats.txt"), emit: statistics
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def kept = private_errors ? "--private_errors ${word("${private_errors}/normalise_variants.${meta.id}.${caller}.txt")}" : ''
    def alone = meta.role == 'train' ? '--alone' : ''
    """
    cat > given.json
    normalise_variants.py \\
        --vcf ${vcf} --sample ${word(meta.id)} --given given.json --reference ${fasta} ${renamed} ${alone} ${kept} ${args} \\
        --summary ${word("${meta.id}.${caller}.summary.json")} --statistics ${word("${meta.id}.${caller}.stats.txt")} \\
        --output ${word("${meta.id}.${caller}.normalised.vcf.gz")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${meta.id}.${caller}.normalised.vcf.gz")} ${word("${meta.id}.${caller}.normalised.vcf.gz.tbi")} \\
        ${word("${meta.id}.${caller}.summary.json")} ${word("${meta.id}.${caller}.stats.txt")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
