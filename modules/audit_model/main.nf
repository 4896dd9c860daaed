include { word } from '../shell'
include { words } from '../shell'

// The release gate: attacks the model and the code that trained it. A model that fails does not come out.
process AUDIT_MODEL {
    tag "${name}"
    label 'process_audit'
    container "cordon-train:${workflow.manifest.version}"

    input:
    tuple val(name), path(model, stageAs: 'audited/*'), path(record), val(ledger), path(trained), path(held_out, stageAs: 'held_out/*')
    path pretrained
    val state

    output:
    tuple val(name), path("${name}.model.safetensors"), emit: model
    tuple val(name), path("${name}.certificate.json"), emit: certificate
    tuple val(name), path("${name}.audit.json"), emit: audit
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def start = pretrained ? "--pretrained ${pretrained}" : ''
    def others = (held_out instanceof List ? held_out : [held_out]).collect { table -> "--held_out ${table}" }.join(' ')
    """
    export OMP_NUM_THREADS=${task.cpus}
    audit_model.py ${trained} ${others} ${start} \\
        --model ${model} --record ${record} --ledger ${word(ledger)} --progress ${word("${state}/progress.log")} ${args} \\
        --certificate ${word("${name}.certificate.json")} --details ${word("${name}.audit.json")}
    cp ${model} ${word("${name}.model.safetensors")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
        dp-accounting: \$(python3 -c "from importlib.metadata import version; print(version('dp-accounting'))")
        torch: \$(python3 -c "from importlib.metadata import version; print(version('torch'))")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${name}.model.safetensors")} ${word("${name}.certificate.json")} ${word("${name}.audit.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
