include { words } from '../shell'

process EVALUATE_SCORES {
    tag 'held-out samples'
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path scores

    output:
    path 'evaluation.json', emit: evaluation
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def tables = (scores instanceof List ? scores : [scores]).collect { table -> "--scores ${table}" }.join(' ')
    """
    evaluate_scores.py ${tables} ${args} --output evaluation.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch evaluation.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
