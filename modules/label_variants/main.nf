// Real or false, by the truth set inside its confident regions; nothing elsewhere.
process LABEL_VARIANTS {
    tag "${meta.id}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(variants), path(truth), path(confident)
    tuple path(fasta), path(fai), path(dict)

    output:
    tuple val(meta), path("${meta.id}.labelled.parquet"), emit: variants
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    label_variants.py \\
        --variants ${variants} --truth ${truth} --confident ${confident} --reference ${fasta} ${args} \\
        --output ${meta.id}.labelled.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.labelled.parquet

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
