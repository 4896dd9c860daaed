include { word } from '../shell'
include { words } from '../shell'

// MultiQC's report: callers' counts, what filters keep, what the federation spent, and software versions.
process MULTIQC {
    tag 'multiqc_report.html'
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    path counts, stageAs: 'counts/*'
    path record
    path certificate
    path evaluation
    val software
    path config

    output:
    path 'multiqc_report.html', emit: report
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def trained = record ? "--federation ${record}" : ''
    def certified = certificate ? "--certificate ${certificate}" : ''
    def evaluated = evaluation ? "--evaluation ${evaluation}" : ''
    def summaries = [counts].flatten().findAll { file -> file.name.endsWith('.json') }.join(' ')
    """
    printf '%b' ${word(software.replace('\\', '\\\\').replace('\n', '\\n'))} > software.yml
    multiqc_content.py ${summaries} ${trained} ${certified} ${evaluated} --versions software.yml --outdir content
    multiqc --config ${config} --filename multiqc_report.html --no-data-dir --strict ${args} content counts

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
        multiqc: \$(python3 -c "from importlib.metadata import version; print(version('multiqc'))")
    END_VERSIONS
    """

    stub:
    """
    touch multiqc_report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
