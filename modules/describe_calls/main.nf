include { words } from '../shell'

process DESCRIBE_CALLS {
    tag 'all samples'
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path scores

    output:
    path 'callset.json', emit: callset
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def tables = (scores instanceof List ? scores : [scores]).collect { table -> "--scores ${table}" }.join(' ')
    """
    describe_calls.py ${tables} ${args} --output callset.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch callset.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
