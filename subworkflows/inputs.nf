include { SIMULATE_COHORT } from '../modules/simulate_cohort/main'
include { SAMPLESHEET_FROM_SAREK } from '../modules/samplesheet_from_sarek/main'
include { CHECK_INPUTS } from '../modules/check_inputs/main'
include { PREPARE_REFERENCE } from '../modules/prepare_reference/main'

// One engine and one scheduler at most; a site's profile may bring its own.
def check_profiles() {
    def chosen = workflow.profile.tokenize(',')
    [
        engines: ['local', 'docker', 'podman', 'singularity', 'apptainer', 'charliecloud'],
        schedulers: ['slurm', 'sge', 'lsf', 'pbspro', 'awsbatch', 'k8s', 'google-batch'],
    ].each { kind, known ->
        def found = known.findAll { name -> name in chosen }
        if (found.size() > 1) {
            error("-profile ${workflow.profile}: ${found.join(' and ')} contradict each other. Choose one of the ${kind} ${known.join(', ')}.")
        }
    }
}

// A file of the user's, or of the simulated consortium.
def given(path, name) {
    if (!path) {
        error("--${name} is missing. Give it, or try the simulated consortium: -profile demo,local")
    }
    file(path, checkIfExists: true)
}

// The files that a samplesheet names and that are there; relative paths start at its own folder. Any cell may name one, as
// CHECK_INPUTS reads it (quoted or not, with a byte order mark or without); that one says what is wrong with a sheet, its
// encoding too: what is no UTF-8 is read with signs in its place, as no error.
def named_files(samplesheet) {
    (new String(samplesheet.bytes, 'UTF-8') =~ /"((?:[^"]|"")*)"|[^,\r\n]+/)
        .collect { whole, quoted -> quoted == null ? whole : quoted.replace('""', '"') }
        .collect { cell -> found_at(samplesheet.parent, cell.trim()) }
        .findAll { path -> path }
        .unique()
}

// The file at a path that starts at ``folder``, if there is one.
def found_at(folder, path) {
    try {
        def found = path && !path.contains('$') ? folder.resolve(path) : null
        found && found.isFile() ? found : null
    }
    catch (Exception _no_path) {
        null
    }
}

// Whether what a samplesheet holds stays out of scripts, tags and error texts: by default where these are sent elsewhere.
def private_names(parameters) {
    def tower = nextflow.Global.session.config.tower
    def reports = (tower && tower.enabled) || System.getenv('TOWER_WORKFLOW_ID')
    parameters.private_names == null ? reports as boolean : "${parameters.private_names}" != 'false'
}

// What a task is told by standard input: a sample's name in its files, and the paths that they have for good.
def named(sample, files) {
    groovy.json.JsonOutput.toJson([sample: sample] + files)
}

// The files of the user's that calling and labelling parameters name and that are there.
def parameter_files(parameters) {
    [parameters.intervals, parameters.allele_frequencies, parameters.known_sites]
        .findAll { given -> given }
        .collectMany { given -> given.tokenize(',') }
        .collect { path -> [path, file(path)] }
        .findAll { _path, found -> found.isFile() }
}

// The site of --from_sarek names tasks before anything else of the run is checked.
def check_site(site) {
    if (site && !("${site}" ==~ /[A-Za-z0-9_.-]+/)) {
        error('--site: may hold letters, digits, _ . and - alone. Correct it.')
    }
}

// A task finds a file of the user's by its own name, in a script: the name holds nothing that a shell would act on.
def check_file_names(parameters) {
    [
        'input', 'sites', 'reference', 'contig_aliases', 'intervals', 'allele_frequencies', 'known_sites', 'simulate_reference',
        'simulate_sites_vcf', 'pretrained', 'public_variants', 'scoring_model', 'aggregator_ca', 'aggregator_policy', 'site_key', 'plan',
    ].each { name ->
        "${parameters[name] ?: ''}".tokenize(',').each { path ->
            if (path.tokenize('/')[-1..-1].join() ==~ /(?s).*[\s'"`$;&|<>()\\*?\[\]{}!#].*/) {
                error("--${name}: the file's name holds a sign that a shell acts on. Rename the file; its folder may be called anything.")
            }
        }
    }
}

// What a params file or a form may leave empty, and cannot.
def check_empty(parameters) {
    ['callers', 'labels', 'outdir', 'state_dir', 'simulate_sites'].each { name ->
        if ("${parameters[name] == null ? '' : parameters[name]}".trim() == '') {
            error("--${name} is empty. Leave it out of the params file, or give it a value.")
        }
    }
}

workflow AGREE_ON_INPUTS {
    take:
    parameters // of the run

    main:
    check_profiles()
    check_empty(parameters)
    check_site(parameters.site)
    check_file_names(parameters)
    private_errors = private_names(parameters) ? file(parameters.state_dir).toAbsolutePath().resolve('private_errors').toString() : ''
    file(private_errors ?: parameters.state_dir).mkdirs()
    versions = channel.empty()
    aliases = parameters.contig_aliases ? file(parameters.contig_aliases, checkIfExists: true) : []
    if ((parameters.simulate_sites as int) > 0) {
        SIMULATE_COHORT(
            [parameters.simulate_sites, parameters.simulate_patients, parameters.simulate_held_out, parameters.simulate_seed],
            parameters.simulate_reference ? file(parameters.simulate_reference, checkIfExists: true) : [],
            parameters.simulate_sites_vcf ? file(parameters.simulate_sites_vcf, checkIfExists: true) : [],
        )
        versions = versions.mix(SIMULATE_COHORT.out.versions)
        samplesheet = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('samplesheet.csv') }
        sites = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('sites.csv') }
        reference = SIMULATE_COHORT.out.cohort.map { cohort -> cohort.resolve('reference.fasta') }
    }
    else {
        if (parameters.from_sarek) {
            sarek = given(parameters.from_sarek, 'from_sarek')
            SAMPLESHEET_FROM_SAREK([sarek, sarek.toAbsolutePath().toString()], parameters.site ?: error('--site is missing. Name the hospital whose samples --from_sarek holds.'), private_errors)
            versions = versions.mix(SAMPLESHEET_FROM_SAREK.out.versions)
            samplesheet = SAMPLESHEET_FROM_SAREK.out.samplesheet
        }
        else {
            samplesheet = channel.value(given(parameters.input, 'input'))
        }
        sites = channel.value(parameters.scoring_model && !parameters.sites ? [] : given(parameters.sites, 'sites'))
        reference = channel.value(given(parameters.reference, 'reference'))
    }

    CHECK_INPUTS(
        samplesheet.map { sheet ->
            def files = named_files(sheet).collect { path -> [path.toString(), path] } + parameter_files(parameters)
            def told = [groovy.json.JsonOutput.toJson(parameters), sheet.parent.toString()] + files.collect { file -> file[0] }
            [sheet, told.join('\n') + '\n', files.collect { file -> file[1] }]
        },
        sites,
        reference,
        file("${projectDir}/nextflow_schema.json"),
        file("${projectDir}/modules/check_inputs/schema_input.json"),
        file("${projectDir}/modules/check_inputs/schema_sites.json"),
        aliases,
        file(parameters.state_dir).toAbsolutePath().toString(),
        private_errors,
    )
    PREPARE_REFERENCE(reference)

    callers = parameters.callers.tokenize(',').unique()
    resources = "${parameters.labels}" == 'resources'
    rows = CHECK_INPUTS.out.samplesheet
        .splitCsv(header: true, quote: '"')
        .map { row ->
            def brought = callers.findAll { caller -> row["${caller}_vcf"] }
            def truth = row.truth_vcf && !(resources && row.role == 'train')
            def meta = [
                id: private_errors ? row.sample_pseudonym : row.sample, site: row.site, role: row.role,
                mark_duplicates: row.mark_duplicates ?: parameters.mark_duplicates, library: row.library ?: parameters.library,
                reads: row.bam ? true : false, given: brought, labelled: truth || (resources && row.role == 'train'),
            ]
            [meta, row, truth]
        }

    emit:
    samples = rows
        .filter { meta, _row, _truth -> meta.reads }
        .map { meta, row, _truth -> [meta, named(row.sample, [bam: row.bam]), file(row.bam, glob: false)] }
    given = rows.flatMap { meta, row, _truth ->
        meta.given.collect { caller -> [meta, caller, named(row.sample, [vcf: row["${caller}_vcf"]]), file(row["${caller}_vcf"], glob: false)] }
    }
    pseudonyms = rows.map { meta, row, _truth -> [meta, groovy.json.JsonOutput.toJson([patient: row.patient_pseudonym, sample: row.sample_pseudonym])] }
    truths = rows
        .filter { meta, _row, _truth -> meta.labelled }
        .map { meta, row, truth ->
            def files = truth ? [truth: row.truth_vcf, confident: row.confident_bed] : [:]
            [meta, named(row.sample, files), truth ? file(row.truth_vcf, glob: false) : [], truth ? file(row.confident_bed, glob: false) : []]
        }
    private_errors = private_errors
    aliases = aliases
    sites = sites
    reference = PREPARE_REFERENCE.out.reference
    versions = versions.mix(CHECK_INPUTS.out.versions, PREPARE_REFERENCE.out.versions)
}
