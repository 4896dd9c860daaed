// bcftools mpileup and call, as pysam carries them.
process BCFTOOLS_CALL {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam), path(bai)
    tuple path(fasta), path(fai), path(dict)
    path intervals

    output:
    tuple val(meta), val('bcftools'), path("${meta.id}.bcftools.vcf.gz"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def regions = intervals ? "--intervals ${intervals}" : ''
    """
    bcftools_call.py \\
        --bam ${bam} --sample ${meta.id} --reference ${fasta} ${regions} ${args} \\
        --output ${meta.id}.bcftools.vcf.gz

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: \$(python3 -c "import pysam.version; print(pysam.version.__bcftools_version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.bcftools.vcf.gz

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: stub
    END_VERSIONS
    """
}
