// Every problem of samplesheet, files and parameters at once, before anything else starts.
process CHECK_INPUTS {
    tag "${samplesheet.name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple path(samplesheet), val(base)
    path sites
    path reference, stageAs: 'reference/*'
    tuple val(originals), path(files, stageAs: 'staged/?/*')
    val parameters
    path schema
    path samplesheet_schema
    path sites_schema
    path aliases
    val state

    output:
    path 'samplesheet.checked.csv', emit: samplesheet
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def here = files instanceof List ? files : [files]
    def staged = [originals, here].transpose().collect { original, copy -> "'${original.replace("'", "'\\''")}\t${copy}'" }.join(' ')
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def declared = sites ? "--sites ${sites}" : ''
    """
    printf '%s\\n' ${staged} > staged.tsv
    printf '%s\\n' '${parameters.replace("'", "'\\''")}' > parameters.json
    check_inputs.py \\
        --samplesheet ${samplesheet} --base '${base}' ${declared} --reference ${reference} \\
        --parameters parameters.json --staged staged.tsv --schema ${schema} \\
        --input_schema ${samplesheet_schema} --sites_schema ${sites_schema} \\
        --state '${state}' ${renamed} ${args} --output samplesheet.checked.csv

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    def here = files instanceof List ? files : [files]
    def full = [originals, here].transpose().collectEntries { original, _copy -> [original.tokenize('/').last(), original] }
    def absolute = full.collect { name, original -> "-e 's#,${name}#,${original}#'" }.join(' ')
    """
    sed ${absolute} -e '1s/\$/,patient_pseudonym,sample_pseudonym/' -e '2,\$s/\$/,stub,stub/' ${samplesheet} > samplesheet.checked.csv

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
