// Sorted, duplicates marked, indexed; the sample is the one that the samplesheet names.
process NORMALISE_READS {
    tag "${meta.id}"
    label 'process_low'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam, stageAs: 'given/*')
    tuple path(fasta), path(fai), path(dict)
    path aliases

    output:
    tuple val(meta), path("${meta.id}.bam"), path("${meta.id}.bam.bai"), emit: reads
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def renamed = aliases ? "--aliases ${aliases}" : ''
    """
    normalise_reads.py \\
        --bam ${bam} --sample ${meta.id} --reference ${fasta} --threads ${task.cpus} \\
        ${renamed} ${args} --output ${meta.id}.bam

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${meta.id}.bam ${meta.id}.bam.bai

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
