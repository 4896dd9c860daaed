// The keys of a consortium whose aggregator and sites all run here.
process ENROL_SITES {
    tag "${host}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path sites
    tuple val(host), val(port)

    output:
    path 'keys/aggregator', emit: aggregator
    path 'keys/sites/*', emit: sites
    path 'keys/address.txt', emit: address
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    """
    enrol_sites.py --sites ${sites} --host ${host} --port ${port} ${args} --outdir keys

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    mkdir -p keys/aggregator
    for site in \$(tail -n +2 ${sites} | cut -d, -f1); do
        mkdir -p keys/sites/\$site
        touch keys/sites/\$site/site.key keys/sites/\$site/ca.crt
    done
    echo 127.0.0.1:1 > keys/address.txt

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
