include { word } from '../shell'
include { words } from '../shell'

// A SuperNode with a site's own labelled variants; it connects out, and nothing connects in.
process TRAIN_SITE {
    tag "${site}"
    label 'process_federation'
    container "cordon-train:${workflow.manifest.version}"

    input:
    tuple val(site), path(variants), path(key), path(certificate), path(policy), val(address)
    path plan
    path sites
    val state
    val transport // '', or the folder that its connections go through

    output:
    tuple val(site), path("${site}.model.safetensors"), emit: model
    tuple val(site), path("${site}.spent.json"), emit: spent
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def trust = policy ? "--policy ${policy}" : "--certificate ${certificate}"
    def way = transport ? "--transport_dir ${word(transport)}" : ''
    def walltime = task.time ? "--walltime ${task.time.toSeconds()}" : ''
    def agreed = plan ? "--plan ${plan}" : ''
    def tables = (variants instanceof List ? variants : [variants]).collect { table -> "--variants ${table}" }.join(' ')
    """
    export OMP_NUM_THREADS=${task.cpus}
    train_site.py \\
        --site ${word(site)} --sites ${sites} ${tables} --address ${word(address)} ${agreed} \\
        --key ${key} ${trust} --state ${word("${state}/sites")} ${way} ${walltime} ${args} \\
        --output ${word("${site}.model.safetensors")} --status ${word("${site}.spent.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
        opacus: \$(python3 -c "from importlib.metadata import version; print(version('opacus'))")
        torch: \$(python3 -c "from importlib.metadata import version; print(version('torch'))")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${site}.model.safetensors")} ${word("${site}.spent.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
