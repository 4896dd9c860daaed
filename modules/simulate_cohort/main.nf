include { plain } from '../shell'
include { word } from '../shell'
include { words } from '../shell'

// A made-up consortium: real alignment and realistic errors, but nobody's genome.
process SIMULATE_COHORT {
    tag { plain("${sites} sites, seed ${seed}") }
    label 'process_medium'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(sites), val(patients), val(held_out), val(seed)
    path reference, stageAs: 'given/*'
    path sites_vcf, stageAs: 'given/*'

    output:
    path 'cohort', emit: cohort
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def real = reference ? "--reference ${reference} --sites_vcf ${sites_vcf}" : ''
    """
    simulate_cohort.py \\
        --sites ${word(sites)} --patients ${word(patients)} --held_out ${word(held_out)} --seed ${word(seed)} \\
        ${real} ${args} --jobs ${task.cpus} --outdir cohort

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    mkdir -p cohort
    echo '>stub' > cohort/reference.fasta
    echo 'site,patient,sample,bam,bai,truth_vcf,confident_bed,role' > cohort/samplesheet.csv
    echo 'site,declared_patients,weight' > cohort/sites.csv
    for site in north south; do
        echo "\$site,1,1" >> cohort/sites.csv
        for role in train test; do
            touch cohort/\$site-\$role.bam cohort/\$site-\$role.vcf.gz cohort/\$site-\$role.bed
            echo "\$site,\$site-\$role,\$site-\$role,\$site-\$role.bam,,\$site-\$role.vcf.gz,\$site-\$role.bed,\$role" \\
                >> cohort/samplesheet.csv
        done
    done

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
