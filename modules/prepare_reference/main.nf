include { words } from '../shell'

process PREPARE_REFERENCE {
    tag "${reference.name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path reference, stageAs: 'given/*'

    output:
    tuple path('reference.fasta'), path('reference.fasta.fai'), path('reference.dict'), emit: reference
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    """
    prepare_reference.py --reference ${reference} ${args} --outdir .

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch reference.fasta reference.fasta.fai reference.dict

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
