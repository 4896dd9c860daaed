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
    def args = task.ext.args ?: ''
    def trust = policy ? "--policy ${policy}" : "--certificate ${certificate}"
    def way = transport ? "--transport_dir '${transport}'" : ''
    def walltime = task.time ? "--walltime ${task.time.toSeconds()}" : ''
    def agreed = plan ? "--plan ${plan}" : ''
    def tables = (variants instanceof List ? variants : [variants]).collect { table -> "--variants ${table}" }.join(' ')
    """
    export OMP_NUM_THREADS=${task.cpus}
    train_site.py \\
        --site ${site} --sites ${sites} ${tables} --address ${address} ${agreed} \\
        --key ${key} ${trust} --state '${state}/sites' ${way} ${walltime} ${args} \\
        --output ${site}.model.safetensors --status ${site}.spent.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
        opacus: \$(python3 -c "from importlib.metadata import version; print(version('opacus'))")
        torch: \$(python3 -c "from importlib.metadata import version; print(version('torch'))")
    END_VERSIONS
    """

    stub:
    """
    touch ${site}.model.safetensors ${site}.spent.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
