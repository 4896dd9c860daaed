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
    def args = task.ext.args ?: ''
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def kept = private_errors ? "--private_errors '${private_errors}/normalise_variants.${meta.id}.${caller}.txt'" : ''
    def alone = meta.role == 'train' ? '--alone' : ''
    """
    cat > given.json
    normalise_variants.py \\
        --vcf ${vcf} --sample ${meta.id} --given given.json --reference ${fasta} ${renamed} ${alone} ${kept} ${args} \\
        --summary ${meta.id}.${caller}.summary.json --statistics ${meta.id}.${caller}.stats.txt \\
        --output ${meta.id}.${caller}.normalised.vcf.gz

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.${caller}.normalised.vcf.gz ${meta.id}.${caller}.normalised.vcf.gz.tbi \\
        ${meta.id}.${caller}.summary.json ${meta.id}.${caller}.stats.txt

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
