include { NORMALISE_RESOURCE } from '../modules/normalise_resource/main'
include { ENCODE_VARIANTS } from '../modules/encode_variants/main'
include { LABEL_VARIANTS } from '../modules/label_variants/main'

workflow REFINE {
    take:
    reads // [meta, bam, bai]
    calls // [meta, callers, vcfs, indices]
    pseudonyms // [meta, JSON of patient and sample]
    truths // [meta, names, truth vcf, confident bed]; no files ([]) where labels come from known sites
    reference // [fasta, fai, dict]
    aliases // table of contig names or []
    private_errors // folder of errors that name somebody, or ''
    parameters // of the run

    main:
    // [name, vcf]: public VCFs; known sites keep the order that they were given in
    known = "${parameters.labels}" == 'resources' ? "${parameters.known_sites ?: ''}".tokenize(',') : []
    frequencies = parameters.allele_frequencies ? [parameters.allele_frequencies] : []
    resources = known.withIndex().collect { path, number -> ["known_sites_${number + 1}", file(path, checkIfExists: true)] }
    resources += frequencies.collect { path -> ['allele_frequencies', file(path, checkIfExists: true)] }
    NORMALISE_RESOURCE(channel.fromList(resources), reference, aliases)
    sites = NORMALISE_RESOURCE.out.sites.branch { name, _vcf, _index ->
        frequencies: name == 'allele_frequencies'
        known: true
    }
    known_sites = sites.known
        .toSortedList { a, b -> a[0] <=> b[0] }
        .map { found -> [found.collect { site -> site[1] }, found.collect { site -> site[2] }] }
    by_frequency = frequencies ? sites.frequencies.map { _name, vcf, index -> [vcf, index] }.first() : channel.value([[], []])

    unread = calls.filter { meta, _callers, _vcfs, _indices -> !meta.reads }.map { meta, callers, vcfs, indices -> [meta, [], [], callers, vcfs, indices] }
    ENCODE_VARIANTS(pseudonyms.join(reads.join(calls).mix(unread)), reference, by_frequency)
    LABEL_VARIANTS(ENCODE_VARIANTS.out.variants.join(truths), reference, known_sites, aliases, private_errors)
    unlabelled = ENCODE_VARIANTS.out.variants.filter { meta, _table -> !meta.labelled }

    emit:
    variants = LABEL_VARIANTS.out.variants.mix(unlabelled) // [meta, parquet]
    versions = NORMALISE_RESOURCE.out.versions.mix(ENCODE_VARIANTS.out.versions, LABEL_VARIANTS.out.versions)
}
