include { plain } from '../shell'
include { word } from '../shell'
include { words } from '../shell'

// The public plan, and the keys of a consortium whose aggregator and sites all run here. `tables` are names
// alone: a change at any site makes a new plan, so aggregator and sites are resumed together or not at all.
process PLAN_RUN {
    tag { plain(host) }
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path sites
    tuple val(host), val(port)
    val tables
    val state
    path pretrained

    output:
    path 'run/plan.json', emit: plan
    path 'run/aggregator', emit: aggregator
    path 'run/sites/*', emit: sites
    path 'run/address.txt', emit: address
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def start = pretrained ? "--pretrained ${pretrained}" : ''
    // What the ledgers in the state folder hold is looked at anew whenever this runs, and a resumed run keeps its plan.
    """
    # What it trains on is part of the task.
    : ${word(tables.join(' '))}
    plan_run.py --sites ${sites} --host ${word(host)} --port ${word(port)} --state ${word(state)} ${start} ${args} --outdir run

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    # What it trains on is part of the task.
    : ${word(tables.join(' '))}
    mkdir -p run/aggregator
    for site in \$(tail -n +2 ${sites} | cut -d, -f1); do
        mkdir -p run/sites/\$site
        touch run/sites/\$site/site.key run/sites/\$site/ca.crt run/sites/\$site/policy.toml
    done
    touch run/plan.json
    echo 127.0.0.1:1 > run/address.txt

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
