include { PLAN_RUN } from '../modules/plan_run/main'
include { AGGREGATE } from '../modules/aggregate/main'
include { TRAIN_SITE } from '../modules/train_site/main'
include { AUDIT_MODEL } from '../modules/audit_model/main'

workflow FEDERATE {
    take:
    variants // [meta, parquet]
    sites // sites sheet
    parameters // of the run

    main:
    state = file(parameters.state_dir).toAbsolutePath().toString()
    shared = parameters.transport_dir ? file(parameters.transport_dir, checkIfExists: true).toAbsolutePath().toString() : "${state}/transport"
    // The tasks of a consortium that plays here may run on different nodes, where 127.0.0.1 is not the aggregator's.
    way = parameters.transport ?: (parameters.scheduler && !parameters.aggregator ? 'files' : 'tls')
    transport = way == 'files' ? shared : ''
    record = channel.value([])
    ledger = channel.value([])
    certificate = channel.value([])
    spent = channel.value([])
    versions = channel.empty()
    policy = parameters.aggregator_policy ? file(parameters.aggregator_policy, checkIfExists: true) : []
    // A site that joins an aggregator elsewhere starts from what that one sends, and audits by it if it is this one.
    start = parameters.pretrained ?: (parameters.model == 'pileup_cnn' ? 'none' : 'public')
    shipped = "${projectDir}/assets/public"
    pretrained = start == 'none' ? [] : file(start == 'public' ? "${shipped}/${parameters.model}.safetensors" : start, checkIfExists: true)
    judging = parameters.public_variants ?: (start == 'public' ? "${shipped}/held_out.parquet" : '')

    // [site, parquets]: the site's own labelled variants, held-out samples apart
    by_role = variants
        .filter { meta, _table -> meta.labelled }
        .branch { meta, table ->
            train: meta.role == 'train'
                return [meta.site, table]
            test: meta.role == 'test'
                return [meta.site, table]
        }
    tables = by_role.train.groupTuple().map { site, group -> [site, group.sort { table -> table.name }] }
    held_out = by_role.test.groupTuple().map { site, group -> [site, group.sort { table -> table.name }] }

    if (parameters.scoring_model) {
        model = channel.value(file(parameters.scoring_model, checkIfExists: true))
    }
    else {
        if (parameters.aggregator) {
            key = file(parameters.site_key, checkIfExists: true)
            pinned = policy ? [] : file(parameters.aggregator_ca, checkIfExists: true)
            agreed = parameters.plan ? file(parameters.plan, checkIfExists: true) : []
            TRAIN_SITE(tables.map { site, group -> [site, group, key, pinned, policy, parameters.aggregator] }, agreed, sites, state, transport)
            // [name, model, what happened, ledger, trained on, held out]: a site audits on its own rows
            trained = TRAIN_SITE.out.model
                .join(TRAIN_SITE.out.spent)
                .map { site, made, happened -> [site, made, happened, "${state}/sites/${site}.sqlite"] }
                .join(tables)
                .join(held_out, remainder: true)
                .filter { row -> row[1] }
                .map { row -> row.size() > 5 && row[5] ? row : row[0..4] + [[]] }
            versions = versions.mix(TRAIN_SITE.out.versions)
        }
        else {
            names = tables.flatMap { _site, group -> group.collect { table -> table.toString() } }.toSortedList()
            public_variants = judging ? file(judging, checkIfExists: true) : []
            PLAN_RUN(sites, ['127.0.0.1', parameters.aggregator_port], names, state, pretrained)
            address = PLAN_RUN.out.address.map { file -> file.text.trim() }
            // [site, key, certificate or [], policy or []]: an attested aggregator makes its own certificate
            keys = PLAN_RUN.out.sites
                .flatten()
                .map { folder ->
                    def authority = parameters.aggregator_evidence ? [] : folder.resolve('ca.crt')
                    def required = parameters.aggregator_evidence == 'emulator' ? folder.resolve('policy.toml') : policy
                    [folder.name, folder.resolve('site.key'), authority, required]
                }
            AGGREGATE(PLAN_RUN.out.plan, PLAN_RUN.out.aggregator, address, state, pretrained, public_variants, transport)
            TRAIN_SITE(tables.join(keys).combine(address), PLAN_RUN.out.plan, sites, state, transport)
            record = AGGREGATE.out.record
            ledger = AGGREGATE.out.ledger
            trained = AGGREGATE.out.model
                .combine(AGGREGATE.out.record)
                .map { made, happened -> ['consortium', made, happened, "${state}/aggregator/ledger.sqlite"] }
                .combine(all(tables))
                .combine(all(held_out))
            versions = versions.mix(PLAN_RUN.out.versions, AGGREGATE.out.versions, TRAIN_SITE.out.versions)
        }
        spent = TRAIN_SITE.out.spent.map { _site, file -> file }.toSortedList { a, b -> a.name <=> b.name }
        if (parameters.audit == 'none') {
            model = trained.map { row -> row[1] }.first()
        }
        else {
            AUDIT_MODEL(trained, pretrained, state)
            model = AUDIT_MODEL.out.model.map { _name, file -> file }.first()
            certificate = AUDIT_MODEL.out.certificate.map { _name, file -> file }.first()
            versions = versions.mix(AUDIT_MODEL.out.versions)
        }
    }

    emit:
    model = model // safetensors
    record = record // federation.json, or [] where the aggregator is elsewhere
    ledger = ledger // the aggregator's decisions, likewise
    certificate = certificate // of the model, or []
    spent = spent // what each site here has spent by its own ledger, or []
    versions = versions
}

// All sites' tables in one list, alone in a row; an empty list where there is none.
def all(tables) {
    tables
        .map { _site, group -> group }
        .collect(flat: false)
        .ifEmpty([])
        .map { groups -> [groups.flatten().sort { table -> table.name }] }
}
