// The union of the callers' alleles, each as a row of fixed public features.
process ENCODE_VARIANTS {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam), path(bai), val(callers), path(vcfs), path(indices)
    tuple path(fasta), path(fai), path(dict)

    output:
    tuple val(meta), path("${meta.id}.variants.parquet"), emit: variants
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def calls = [callers, vcfs instanceof List ? vcfs : [vcfs]].transpose().collect { caller, vcf -> "--calls ${caller}=${vcf}" }.join(' ')
    """
    encode_variants.py \\
        --site ${meta.site} --patient ${meta.patient} --sample ${meta.id} \\
        --bam ${bam} --reference ${fasta} ${calls} ${args} --output ${meta.id}.variants.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.variants.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
