include { CALIBRATE_SCORES } from './calibrate_scores/main'
include { SCORE_VARIANTS } from './score_variants/main'
include { DESCRIBE_CALLS } from './describe_calls/main'
include { EVALUATE_SCORES } from './evaluate_scores/main'
include { REPORT } from './report/main'
include { MULTIQC } from './multiqc/main'

workflow SCORE {
    take:
    variants // [meta, parquet]
    calls // [meta, callers, vcfs, indices]
    counts // summary.json and stats.txt of every sample and caller
    reference // [fasta, fai, dict]
    model // safetensors
    record // federation.json or []
    ledger // the aggregator's decisions or []
    certificate // of the model or []
    spent // spent.json of every site here, or []
    versions // versions.yml of the stages before
    parameters // of the run

    main:
    // [site, parquets]: a site calibrates on its own training labels; it may have none
    calibrating = variants
        .map { meta, table -> [meta.site, meta.role == 'train' && meta.labelled ? [table] : []] }
        .groupTuple()
        .map { site, groups -> [site, groups.collectMany { group -> group }.sort { table -> table.name }] }
    CALIBRATE_SCORES(calibrating, model)

    scoring = variants
        .map { meta, table -> [meta.site, meta, table] }
        .combine(CALIBRATE_SCORES.out.calibration, by: 0)
        .map { _site, meta, table, calibration -> [meta, table, calibration] }
        .join(calls)
        .map { meta, table, calibration, callers, vcfs, indices -> [meta, table, callers, vcfs, indices, calibration] }
    SCORE_VARIANTS(scoring, reference, model)

    DESCRIBE_CALLS(SCORE_VARIANTS.out.table.map { _meta, table -> table }.toSortedList { a, b -> a.name <=> b.name })
    held_out = SCORE_VARIANTS.out.table
        .filter { meta, _table -> meta.role == 'test' && meta.labelled }
        .map { _meta, table -> table }
        .toSortedList { a, b -> a.name <=> b.name }
        .filter { tables -> tables.size() > 0 }
    EVALUATE_SCORES(held_out)

    software = versions
        .mix(
            CALIBRATE_SCORES.out.versions,
            SCORE_VARIANTS.out.versions,
            DESCRIBE_CALLS.out.versions,
            EVALUATE_SCORES.out.versions,
        )
        .map { file -> file.text }
        .unique()
        .toSortedList()
        .map { texts -> texts.join('') }
    given = groovy.json.JsonOutput.prettyPrint(groovy.json.JsonOutput.toJson(parameters))
    // What the tasks took so far; the file grows, so the report of a resumed run is made anew.
    trace = software.map { _text -> [file("${parameters.outdir}/pipeline_info/trace.txt")].findAll { file -> file.exists() } }
    REPORT(
        record,
        ledger,
        certificate,
        spent,
        EVALUATE_SCORES.out.evaluation.ifEmpty([]),
        DESCRIBE_CALLS.out.callset,
        trace,
        software,
        given,
    )
    MULTIQC(
        counts.toSortedList { a, b -> a.name <=> b.name },
        record,
        certificate,
        EVALUATE_SCORES.out.evaluation.ifEmpty([]),
        software,
        file("${projectDir}/assets/multiqc_config.yml"),
    )
    software.collectFile(name: 'software_versions.yml', storeDir: "${parameters.outdir}/pipeline_info")
    channel.of(given).collectFile(name: 'params.json', storeDir: "${parameters.outdir}/pipeline_info")

    emit:
    vcf = SCORE_VARIANTS.out.vcf // [meta, vcf, tbi]
    report = REPORT.out.report
    shareable = REPORT.out.shareable
    multiqc = MULTIQC.out.report
}
