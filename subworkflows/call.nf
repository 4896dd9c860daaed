include { named } from './inputs'
include { NORMALISE_READS } from '../modules/normalise_reads/main'
include { SPLIT_INTERVALS } from '../modules/split_intervals/main'
include { GATK4_HAPLOTYPECALLER } from '../modules/gatk4/haplotypecaller/main'
include { GATK4_GENOTYPEGVCFS } from '../modules/gatk4/genotypegvcfs/main'
include { DEEPVARIANT } from '../modules/deepvariant/main'
include { BCFTOOLS_CALL } from '../modules/bcftools/call/main'
include { GATHER } from './gather'
include { NORMALISE_VARIANTS } from '../modules/normalise_variants/main'

// [meta, bam, bai] of the samples that a caller is still to call
def without_calls(reads, caller) {
    reads.filter { meta, _bam, _bai -> !(caller in meta.given) }
}

// That callers leave out most reads of a sample is told while the run goes on; the report has the figures, which stay here.
def warn_of_duplicates(meta, told) {
    def found = new groovy.json.JsonSlurper().parse(told)
    if (found.warning) {
        log.warn("${meta.id}: most of its reads are duplicates, which callers leave out. ${meta.id}.reads.json and the report say what to look at.")
    }
}

workflow CALL {
    take:
    samples // [meta, names, bam]
    given // [meta, caller, names, vcf]: calls that the user brings
    reference // [fasta, fai, dict]
    aliases // table of contig names or []
    private_errors // folder of errors that name somebody, or ''
    parameters // of the run

    main:
    callers = parameters.callers.tokenize(',').unique()
    gvcf = "${parameters.gvcf}" == 'true'
    in_parts = channel.empty()
    called = channel.empty()

    NORMALISE_READS(samples, reference, aliases, private_errors)
    reads = NORMALISE_READS.out.reads
    NORMALISE_READS.out.duplicates.subscribe { meta, told -> warn_of_duplicates(meta, told) }
    versions = NORMALISE_READS.out.versions

    SPLIT_INTERVALS(reference, parameters.intervals ? file(parameters.intervals, checkIfExists: true) : [], aliases)
    versions = versions.mix(SPLIT_INTERVALS.out.versions)
    beds = SPLIT_INTERVALS.out.parts.map { found -> found instanceof List ? found : [found] }
    parts = beds.flatMap { found -> found.collect { bed -> [found.size() > 1 ? ".${bed.baseName}" : '', bed] } }

    // [meta, bam, bai, name, bed]: every sample in every part
    if ('haplotypecaller' in callers) {
        spread = without_calls(reads, 'haplotypecaller').combine(parts).map { meta, bam, bai, part, bed -> [meta, bam, bai, meta.id + part, bed] }
        GATK4_HAPLOTYPECALLER(spread, reference, gvcf)
        versions = versions.mix(GATK4_HAPLOTYPECALLER.out.versions)
        if (gvcf) {
            GATK4_GENOTYPEGVCFS(GATK4_HAPLOTYPECALLER.out.calls, reference)
            versions = versions.mix(GATK4_GENOTYPEGVCFS.out.versions)
            in_parts = in_parts.mix(
                GATK4_HAPLOTYPECALLER.out.calls.map { meta, name, vcf, index -> [meta, 'haplotypecaller.g.vcf.gz', name, vcf, index] },
                GATK4_GENOTYPEGVCFS.out.calls.map { meta, name, vcf, index -> [meta, 'haplotypecaller.vcf.gz', name, vcf, index] },
            )
        }
        else {
            in_parts = in_parts.mix(GATK4_HAPLOTYPECALLER.out.calls.map { meta, name, vcf, index -> [meta, 'haplotypecaller.vcf.gz', name, vcf, index] })
        }
    }
    if ('bcftools' in callers) {
        spread = without_calls(reads, 'bcftools').combine(parts).map { meta, bam, bai, part, bed -> [meta, bam, bai, meta.id + part, bed] }
        BCFTOOLS_CALL(spread, reference)
        versions = versions.mix(BCFTOOLS_CALL.out.versions)
        in_parts = in_parts.mix(BCFTOOLS_CALL.out.calls.map { meta, name, vcf, index -> [meta, 'bcftools.vcf.gz', name, vcf, index] })
    }
    GATHER(in_parts, beds.map { found -> found.size() })
    called = GATHER.out.calls
        .filter { _meta, suffix, _vcf, _index -> suffix != 'haplotypecaller.g.vcf.gz' }
        .map { meta, suffix, vcf, _index -> [meta, suffix.tokenize('.')[0], vcf] }
    if ('deepvariant' in callers) {
        DEEPVARIANT(without_calls(reads, 'deepvariant'), reference, SPLIT_INTERVALS.out.whole, parameters.deepvariant_model_type, gvcf)
        versions = versions.mix(DEEPVARIANT.out.versions)
        called = called.mix(DEEPVARIANT.out.calls.map { meta, vcf, _index -> [meta, 'deepvariant', vcf] })
    }

    // What is called here names the sample as the normalised reads do.
    own = called.map { meta, caller, vcf -> [meta, caller, named(meta.id, [:]), vcf] }
    NORMALISE_VARIANTS(own.mix(given), reference, aliases, private_errors)

    // Callers finish in any order; sorted, a resumed run finds its tasks again.
    calls = NORMALISE_VARIANTS.out.calls
        .map { meta, caller, vcf, index -> [meta, [caller, vcf, index]] }
        .groupTuple(size: callers.size())
        .map { meta, group -> [meta] + group.sort { call -> call[0] }.transpose() }

    emit:
    reads = reads // [meta, bam, bai]
    calls = calls // [meta, callers, vcfs, indices]
    // summary.json and stats.txt of every sample and caller
    counts = NORMALISE_VARIANTS.out.summary.mix(NORMALISE_VARIANTS.out.statistics).map { _meta, _caller, file -> file }
    duplicates = NORMALISE_READS.out.duplicates.map { _meta, told -> told } // reads.json of every sample with reads
    versions = versions.mix(GATHER.out.versions, NORMALISE_VARIANTS.out.versions)
}
