include { word } from '../shell'
include { words } from '../shell'

// The samplesheet of a results folder of nf-core/sarek; `folder` is where it lies for good. Made anew by every
// run, because a folder's own date does not tell that files deep inside it are new.
process SAMPLESHEET_FROM_SAREK {
    tag "${site}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"
    cache false

    input:
    tuple path(sarek, stageAs: 'sarek'), val(folder)
    val site
    val private_errors

    output:
    path 'samplesheet.csv', emit: samplesheet
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def kept = private_errors ? "--private_errors ${word("${private_errors}/samplesheet_from_sarek.txt")}" : ''
    """
    samplesheet_from_sarek.py --sarek ${sarek} --folder ${word(folder)} --site ${word(site)} ${kept} ${args} --output samplesheet.csv

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    echo 'site,patient,sample,bam,bai,truth_vcf,confident_bed,role' > samplesheet.csv
    for reads in ${word(folder)}/preprocessing/*/*/*.bam; do
        sample=\$(basename \$(dirname \$reads))
        echo ${word(site)}",\$sample,\$sample,\$reads,,,,train" >> samplesheet.csv
    done

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
