include { ENCODE_VARIANTS } from './encode_variants/main'
include { LABEL_VARIANTS } from './label_variants/main'

workflow REFINE {
    take:
    reads // [meta, bam, bai]
    calls // [meta, callers, vcfs, indices]
    truths // [meta, truth vcf, confident bed]
    reference // [fasta, fai, dict]

    main:
    ENCODE_VARIANTS(reads.join(calls), reference)
    LABEL_VARIANTS(ENCODE_VARIANTS.out.variants.join(truths), reference)
    unlabelled = ENCODE_VARIANTS.out.variants.filter { meta, _table -> !meta.labelled }

    emit:
    variants = LABEL_VARIANTS.out.variants.mix(unlabelled) // [meta, parquet]
    versions = ENCODE_VARIANTS.out.versions.mix(LABEL_VARIANTS.out.versions)
}
