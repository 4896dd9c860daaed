include { CALIBRATE_SCORES } from '../modules/calibrate_scores/main'
include { SCORE_VARIANTS } from '../modules/score_variants/main'
include { DESCRIBE_CALLS } from '../modules/describe_calls/main'
include { EVALUATE_SCORES } from '../modules/evaluate_scores/main'
include { REPORT } from '../modules/report/main'
include { MULTIQC } from '../modules/multiqc/main'

// So many of a site's samples are scored by one task: a start costs more than a small sample's scores, and a site of
// many genomes still fills a cluster.
def scored_together() {
    8
}

workflow SCORE {
    take:
    variants // [meta, parquet]
    calls // [meta, callers, vcfs, indices]
    counts // summary.json and stats.txt of every sample and caller
    duplicates // reads.json of every sample with reads
    reference // [fasta, fai, dict]
    model // safetensors
    record // federation.json or []
    ledger // the aggregator's decisions or []
    certificate // of the model or []
    spent // spent.json of every site here, or []
    sites // sites sheet, or []
    versions // versions.yml of the stages before
    parameters // of the run

    main:
    // [site, parquets]: a site calibrates on its own training labels; it may have none, or use none
    uncalibrated = "${parameters.calibration}" == 'none'
    calibrating = variants
        .map { meta, table -> [meta.site, meta.role == 'train' && meta.labelled && !uncalibrated ? [table] : []] }
        .groupTuple()
        .map { site, groups -> [site, groups.collectMany { group -> group }.sort { table -> table.name }] }
    declared = "${parameters.calibration}" == 'private' ? sites : []
    CALIBRATE_SCORES(calibrating, model, file(parameters.state_dir).toAbsolutePath().toString(), declared)

    // [part, names, calls, parquets, vcfs, indices, calibration]: a site's samples, scored_together() in a task
    scoring = variants
        .join(calls)
        .map { meta, table, callers, vcfs, indices -> [meta.site, [meta.id, table, callers, vcfs, indices]] }
        .groupTuple()
        .flatMap { site, samples ->
            samples.sort { sample -> sample[0] }.collate(scored_together()).withIndex().collect { part, number ->
                [site, "${site} ${number + 1}", part]
            }
        }
        .combine(CALIBRATE_SCORES.out.calibration, by: 0)
        .map { _site, name, samples, calibration ->
            def called = samples.collect { _id, _table, callers, vcfs, _indices ->
                [callers, vcfs].transpose().collect { caller, vcf -> "${caller}=${vcf.name}" }.join(';')
            }
            def (ids, tables, _callers, vcfs, indices) = samples.transpose()
            [name, ids, called, tables, vcfs.flatten(), indices.flatten(), calibration]
        }
    SCORE_VARIANTS(scoring, reference, model)

    // [id, parquet]
    scored = SCORE_VARIANTS.out.table
        .flatMap { _part, tables -> tables instanceof List ? tables : [tables] }
        .map { table -> [table.name - '.scored.parquet', table] }
    DESCRIBE_CALLS(scored.map { _id, table -> table }.toSortedList { a, b -> a.name <=> b.name })
    held_out = variants
        .filter { meta, _table -> meta.role == 'test' && meta.labelled }
        .map { meta, _table -> [meta.id] }
        .join(scored)
        .map { _id, table -> table }
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
        CALIBRATE_SCORES.out.calibration.map { _site, file -> file }.toSortedList { a, b -> a.name <=> b.name },
        EVALUATE_SCORES.out.evaluation.ifEmpty([]),
        DESCRIBE_CALLS.out.callset,
        duplicates.toSortedList { a, b -> a.name <=> b.name },
        trace,
        software,
        given,
    )
    MULTIQC(
        counts.mix(duplicates).toSortedList { a, b -> a.name <=> b.name },
        record,
        certificate,
        EVALUATE_SCORES.out.evaluation.ifEmpty([]),
        software,
        file("${projectDir}/assets/multiqc_config.yml"),
    )
    channel.of(given).collectFile(name: 'params.json', storeDir: "${parameters.outdir}/pipeline_info")

    emit:
    vcf = SCORE_VARIANTS.out.vcf // [part, vcfs, tbis]
    report = REPORT.out.report
    shareable = REPORT.out.shareable
    multiqc = MULTIQC.out.report
}
