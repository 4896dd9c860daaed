include { word } from '../shell'
include { words } from '../shell'

// The parameters come in by standard input, as JSON.
process REPORT {
    tag 'report.html'
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path record
    path ledger
    path certificate
    path spent
    path calibrations
    path evaluation
    path callset
    path duplicates
    path trace
    val software
    stdin

    output:
    path 'report.html', emit: report
    path 'shareable_report.html', emit: shareable
    path 'software_versions.yml', emit: software
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def trained = record ? "--federation ${record} --ledger ${ledger}" : ''
    def certified = certificate ? "--certificate ${certificate}" : ''
    def own = [spent].flatten().collect { file -> "--spent ${file}" }.join(' ')
    def calibrated = [calibrations].flatten().collect { file -> "--calibration ${file}" }.join(' ')
    def evaluated = evaluation ? "--evaluation ${evaluation}" : ''
    def marked = [duplicates].flatten().collect { file -> "--duplicates ${file}" }.join(' ')
    def measured = trace ? "--trace ${trace}" : ''
    """
    cat > parameters.json
    printf '%b' ${word(software.replace('\\', '\\\\').replace('\n', '\\n'))} > software_versions.yml
    write_report.py \\
        ${trained} ${certified} ${own} ${calibrated} ${evaluated} ${measured} ${marked} --callset ${callset} --versions software_versions.yml \\
        --parameters parameters.json ${args} --output report.html --shareable shareable_report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch report.html shareable_report.html
    printf '%b' ${word(software.replace('\\', '\\\\').replace('\n', '\\n'))} > software_versions.yml

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
