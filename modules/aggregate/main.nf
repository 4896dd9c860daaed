include { plain } from '../shell'
include { word } from '../shell'
include { words } from '../shell'

// SuperLink, audit and averaging; sees no site's data.
process AGGREGATE {
    tag { plain(address) }
    label 'process_federation'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path plan
    path credentials
    val address
    val state
    path pretrained
    path public_variants
    val transport // '', or the folder that sites' connections come through

    output:
    path 'model.safetensors', emit: model
    path 'federation.json', emit: record
    path 'aggregator.ledger.jsonl', emit: ledger
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def start = pretrained ? "--pretrained ${pretrained}" : ''
    def way = transport ? "--transport_dir ${word(transport)}" : ''
    def judge = public_variants ? "--public_variants ${public_variants}" : ''
    """
    aggregate.py \\
        --plan ${plan} --credentials ${credentials} --address ${word(address)} --state ${word("${state}/aggregator")} \\
        --progress ${word("${state}/progress.log")} ${start} ${judge} ${way} ${args} \\
        --output model.safetensors --record federation.json
    python3 -m cordon.cli ledger export ${word("${state}/aggregator/ledger.sqlite")} --output aggregator.ledger.jsonl

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
        flwr: \$(python3 -c "from importlib.metadata import version; print(version('flwr'))")
    END_VERSIONS
    """

    stub:
    """
    touch model.safetensors federation.json aggregator.ledger.jsonl

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
