include { word } from '../shell'
include { words } from '../shell'

// Log odds and thresholds: exact figures of a site's own labels, private ones that its ledger records, or none.
process CALIBRATE_SCORES {
    tag "${site}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(site), path(variants)
    path model
    val state
    path sites // sites sheet, or [] where nothing is paid for

    output:
    tuple val(site), path("${site}.calibration.json"), emit: calibration
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def sheet = sites ? "--sites ${sites}" : ''
    def tables = (variants instanceof List ? variants : [variants]).collect { table -> "--variants ${table}" }.join(' ')
    """
    calibrate_scores.py \\
        --model ${model} --site ${word(site)} ${tables} --state ${word("${state}/sites")} ${sheet} ${args} --output ${word("${site}.calibration.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${site}.calibration.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
