process SCORE_VARIANTS {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(variants), val(callers), path(vcfs), path(indices), path(calibration)
    tuple path(fasta), path(fai), path(dict)
    path model

    output:
    tuple val(meta), path("${meta.id}.scored.vcf.gz"), path("${meta.id}.scored.vcf.gz.tbi"), emit: vcf
    tuple val(meta), path("${meta.id}.scored.parquet"), emit: table
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def calls = [callers, vcfs instanceof List ? vcfs : [vcfs]].transpose().collect { caller, vcf -> "--calls ${caller}=${vcf}" }.join(' ')
    """
    score_variants.py \\
        --model ${model} --calibration ${calibration} --variants ${variants} ${calls} \\
        --reference ${fasta} --sample ${meta.id} ${args} \\
        --output ${meta.id}.scored.vcf.gz --table ${meta.id}.scored.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.scored.vcf.gz ${meta.id}.scored.vcf.gz.tbi ${meta.id}.scored.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
