include { NORMALISE_READS } from './normalise_reads/main'
include { GATK4_HAPLOTYPECALLER } from './gatk4/haplotypecaller/main'
include { DEEPVARIANT } from './deepvariant/main'
include { BCFTOOLS_CALL } from './bcftools/call/main'
include { NORMALISE_VARIANTS } from './normalise_variants/main'

workflow CALL {
    take:
    samples // [meta, bam]
    reference // [fasta, fai, dict]

    main:
    callers = params.callers.tokenize(',')
    intervals = params.intervals ? file(params.intervals, checkIfExists: true) : []
    called = channel.empty()
    versions = channel.empty()

    NORMALISE_READS(samples, reference)
    if ('haplotypecaller' in callers) {
        GATK4_HAPLOTYPECALLER(NORMALISE_READS.out.reads, reference, intervals)
        called = called.mix(GATK4_HAPLOTYPECALLER.out.calls)
        versions = versions.mix(GATK4_HAPLOTYPECALLER.out.versions)
    }
    if ('deepvariant' in callers) {
        DEEPVARIANT(NORMALISE_READS.out.reads, reference, intervals, params.deepvariant_model_type)
        called = called.mix(DEEPVARIANT.out.calls)
        versions = versions.mix(DEEPVARIANT.out.versions)
    }
    if ('bcftools' in callers) {
        BCFTOOLS_CALL(NORMALISE_READS.out.reads, reference, intervals)
        called = called.mix(BCFTOOLS_CALL.out.calls)
        versions = versions.mix(BCFTOOLS_CALL.out.versions)
    }
    NORMALISE_VARIANTS(called, reference)

    // Callers finish in any order; sorted, a resumed run finds its tasks again.
    calls = NORMALISE_VARIANTS.out.calls
        .map { meta, caller, vcf, index -> [meta, [caller, vcf, index]] }
        .groupTuple(size: callers.size())
        .map { meta, group -> [meta] + group.sort { call -> call[0] }.transpose() }

    emit:
    reads = NORMALISE_READS.out.reads // [meta, bam, bai]
    calls = calls // [meta, callers, vcfs, indices]
    versions = versions.mix(NORMALISE_READS.out.versions, NORMALISE_VARIANTS.out.versions)
}
