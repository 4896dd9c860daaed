include { word } from '../shell'
include { words } from '../shell'

// Sorted, duplicates marked where that is wanted, indexed; the sample is the one that the samplesheet names. That name comes in by standard
// input, as JSON, and what is written names the sample `meta.id`. An error that names somebody goes to a file in the folder
// `private_errors`, where there is one.
process NORMALISE_READS {
    tag "${meta.id}"
    label 'process_low'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), '-', path(bam, stageAs: 'given/reads')
    tuple path(fasta), path(fai), path(dict)
    path aliases
    val private_errors

    output:
    tuple val(meta), path("${meta.id}.bam"), path("${meta.id}.bam.bai"), emit: reads
    tuple val(meta), path("${meta.id}.reads.json"), emit: duplicates
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def kept = private_errors ? "--private_errors ${word("${private_errors}/normalise_reads.${meta.id}.txt")}" : ''
    """
    cat > given.json
    normalise_reads.py \\
        --bam ${bam} --sample ${word(meta.id)} --given given.json --reference ${fasta} --threads ${task.cpus} \\
        --mark_duplicates ${word(meta.mark_duplicates)} --library ${word(meta.library)} ${renamed} ${kept} ${args} \\
        --summary ${word("${meta.id}.reads.json")} --output ${word("${meta.id}.bam")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${meta.id}.bam")} ${word("${meta.id}.bam.bai")}
    printf '{"sample": "%s", "warning": ""}\\n' ${word(meta.id)} > ${word("${meta.id}.reads.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
