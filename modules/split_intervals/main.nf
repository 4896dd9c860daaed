include { words } from '../shell'

// Where to call, and its parts: a sample's calling is spread over them, and fails and resumes by them.
process SPLIT_INTERVALS {
    tag "${intervals ? intervals.name : fasta.name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple path(fasta), path(fai), path(dict)
    path intervals, stageAs: 'given/*'
    path aliases

    output:
    path 'parts/*.bed', emit: parts
    path 'intervals.bed', emit: whole
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def limited = intervals ? "--intervals ${intervals}" : ''
    def renamed = aliases ? "--aliases ${aliases}" : ''
    """
    split_intervals.py --reference ${fasta} ${limited} ${renamed} ${args} --outdir parts --whole intervals.bed

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    mkdir -p parts
    touch parts/0001.bed parts/0002.bed intervals.bed

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
