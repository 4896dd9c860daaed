include { SIMULATE_COHORT } from './simulate_cohort/main'
include { CHECK_INPUTS } from './check_inputs/main'
include { PREPARE_REFERENCE } from './prepare_reference/main'

// A file of the user's, or of the simulated consortium.
def given(path, name) {
    if (!path) {
        error("--${name} is missing. Give it, or try the simulated consortium: -profile demo,local")
    }
    file(path, checkIfExists: true)
}

// The files that a samplesheet names and that are there; relative paths start at its own folder.
def named_files(samplesheet) {
    samplesheet.splitCsv(header: true)
        .collectMany { row -> ['bam', 'bai', 'truth_vcf', 'confident_bed'].collect { column -> row[column] } }
        .findAll { path -> path }
        .collect { path -> samplesheet.parent.resolve(path) }
        .findAll { path -> path.isFile() }
        .unique()
}

workflow AGREE_ON_INPUTS {
    main:
    versions = channel.empty()
    if ((params.simulate_sites as int) > 0) {
        SIMULATE_COHORT(
            [params.simulate_sites, params.simulate_patients, params.simulate_held_out, params.simulate_seed],
            params.simulate_reference ? file(params.simulate_reference, checkIfExists: true) : [],
            params.simulate_sites_vcf ? file(params.simulate_sites_vcf, checkIfExists: true) : [],
        )
        versions = versions.mix(SIMULATE_COHORT.out.versions)
        samplesheet = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('samplesheet.csv') }
        sites = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('sites.csv') }
        reference = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('reference.fasta') }
    }
    else {
        samplesheet = channel.value(given(params.input, 'input'))
        sites = channel.value(params.scoring_model && !params.sites ? [] : given(params.sites, 'sites'))
        reference = channel.value(given(params.reference, 'reference'))
    }

    CHECK_INPUTS(
        samplesheet.map { sheet -> [sheet, sheet.parent.toString()] },
        sites,
        reference,
        samplesheet.map { sheet -> named_files(sheet) }.map { files -> [files.collect { path -> path.toString() }, files] },
        groovy.json.JsonOutput.toJson(params),
        file("${projectDir}/nextflow_schema.json"),
        file("${projectDir}/modules/check_inputs/schema_input.json"),
        file("${projectDir}/modules/check_inputs/schema_sites.json"),
    )
    PREPARE_REFERENCE(reference)

    rows = CHECK_INPUTS.out.samplesheet
        .splitCsv(header: true)
        .map { row ->
            def meta = [
                id: row.sample, site: row.site, patient: row.patient, role: row.role,
                labelled: row.truth_vcf ? true : false,
            ]
            [meta, row]
        }

    emit:
    samples = rows.map { meta, row -> [meta, file(row.bam)] }
    truths = rows.filter { meta, _row -> meta.labelled }.map { meta, row -> [meta, file(row.truth_vcf), file(row.confident_bed)] }
    sites = sites
    reference = PREPARE_REFERENCE.out.reference
    versions = versions.mix(CHECK_INPUTS.out.versions, PREPARE_REFERENCE.out.versions)
}
