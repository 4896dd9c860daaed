include { PLAN_RUN } from './plan_run/main'
include { AGGREGATE } from './aggregate/main'
include { TRAIN_SITE } from './train_site/main'

workflow FEDERATE {
    take:
    variants // [meta, parquet]
    sites // sites sheet

    main:
    state = file(params.state_dir).toAbsolutePath().toString()
    record = channel.value([])
    ledger = channel.value([])
    versions = channel.empty()
    policy = params.aggregator_policy ? file(params.aggregator_policy, checkIfExists: true) : []

    // [site, parquets]: the site's own labelled variants, held-out samples left out
    tables = variants
        .filter { meta, _table -> meta.role == 'train' && meta.labelled }
        .map { meta, table -> [meta.site, table] }
        .groupTuple()
        .map { site, group -> [site, group.sort { table -> table.name }] }

    if (params.scoring_model) {
        model = channel.value(file(params.scoring_model, checkIfExists: true))
    }
    else if (params.aggregator) {
        key = file(params.site_key, checkIfExists: true)
        certificate = policy ? [] : file(params.aggregator_ca, checkIfExists: true)
        agreed = params.plan ? file(params.plan, checkIfExists: true) : []
        TRAIN_SITE(tables.map { site, group -> [site, group, key, certificate, policy, params.aggregator] }, agreed, sites, state)
        model = TRAIN_SITE.out.model.map { _site, file -> file }.first()
        versions = versions.mix(TRAIN_SITE.out.versions)
    }
    else {
        names = tables.flatMap { _site, group -> group.collect { table -> table.toString() } }.toSortedList()
        pretrained = params.pretrained ? file(params.pretrained, checkIfExists: true) : []
        public_variants = params.public_variants ? file(params.public_variants, checkIfExists: true) : []
        PLAN_RUN(sites, ['127.0.0.1', params.aggregator_port], names, state, pretrained)
        address = PLAN_RUN.out.address.map { file -> file.text.trim() }
        // [site, key, certificate or [], policy or []]: an attested aggregator makes its own certificate
        keys = PLAN_RUN.out.sites
            .flatten()
            .map { folder ->
                def pinned = params.aggregator_evidence ? [] : folder.resolve('ca.crt')
                def required = params.aggregator_evidence == 'emulator' ? folder.resolve('policy.toml') : policy
                [folder.name, folder.resolve('site.key'), pinned, required]
            }
        AGGREGATE(PLAN_RUN.out.plan, PLAN_RUN.out.aggregator, address, state, pretrained, public_variants)
        TRAIN_SITE(tables.join(keys).combine(address), PLAN_RUN.out.plan, sites, state)
        model = AGGREGATE.out.model
        record = AGGREGATE.out.record
        ledger = AGGREGATE.out.ledger
        versions = versions.mix(PLAN_RUN.out.versions, AGGREGATE.out.versions, TRAIN_SITE.out.versions)
    }

    emit:
    model = model // safetensors
    record = record // federation.json, or [] where the aggregator is elsewhere
    ledger = ledger // the aggregator's decisions, likewise
    versions = versions
}
