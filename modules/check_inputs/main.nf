include { word } from '../shell'
include { words } from '../shell'

// Every problem of samplesheet, files and parameters at once, before anything else starts. In a line each, standard input
// has the parameters as JSON, the folder that relative paths start from, and the paths of the files that are staged here.
// Where `private_errors` is a folder, an error that names somebody goes there, and who is who is written down.
process CHECK_INPUTS {
    tag "${samplesheet.name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple path(samplesheet), '-', path(files, stageAs: 'staged/?/file')
    path sites
    path reference, stageAs: 'reference/*'
    path schema
    path samplesheet_schema
    path sites_schema
    path aliases
    val state
    val private_errors

    output:
    path 'samplesheet.checked.csv', emit: samplesheet
    path 'private_names.csv', optional: true, emit: names
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def renamed = aliases ? "--aliases ${aliases}" : ''
    def declared = sites ? "--sites ${sites}" : ''
    def kept = private_errors ? "--names private_names.csv --private_errors ${word("${private_errors}/check_inputs.txt")}" : ''
    """
    IFS= read -r parameters
    IFS= read -r base
    printf '%s\\n' "\$parameters" > parameters.json
    number=0
    while IFS= read -r path; do
        printf '%s\\tstaged/%d/file\\n' "\$path" \$((++number))
    done > staged.tsv
    check_inputs.py \\
        --samplesheet ${samplesheet} --base "\$base" ${declared} --reference ${reference} \\
        --parameters parameters.json --staged staged.tsv --schema ${schema} \\
        --input_schema ${samplesheet_schema} --sites_schema ${sites_schema} \\
        --state ${word("${state}/sites")} ${renamed} ${kept} ${args} --output samplesheet.checked.csv

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    def names = private_errors ? 'cp samplesheet.checked.csv private_names.csv' : ''
    """
    sed 's/.*/&,patient_pseudonym,sample_pseudonym/; 1q' ${samplesheet} > samplesheet.checked.csv
    tail -n +3 | sed -n 's#\\(.*\\)/\\(.*\\)#s\\#,\\2\\#,\\1/\\2\\##p' > absolute.sed
    tail -n +2 ${samplesheet} | sed -f absolute.sed | awk '{ print \$0 ",patient-" NR ",sample-" NR }' >> samplesheet.checked.csv
    ${names}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
