#!/usr/bin/env nextflow

include { AGREE_ON_INPUTS } from './modules/inputs'
include { CALL } from './modules/call'
include { REFINE } from './modules/refine'
include { FEDERATE } from './modules/federate'
include { SCORE } from './modules/score'

workflow {
    main:
    // samples: [meta, bam]; given: [meta, caller, vcf]; pseudonyms: [meta, patient, sample]
    // truths: [meta, truth vcf, confident bed]; reference: [fasta, fai, dict]; aliases: table of contig names or []
    AGREE_ON_INPUTS()
    samples = AGREE_ON_INPUTS.out.samples
    given = AGREE_ON_INPUTS.out.given
    pseudonyms = AGREE_ON_INPUTS.out.pseudonyms
    truths = AGREE_ON_INPUTS.out.truths
    reference = AGREE_ON_INPUTS.out.reference
    aliases = AGREE_ON_INPUTS.out.aliases

    // reads: [meta, bam, bai]; calls: [meta, callers, vcfs, indices]
    CALL(samples, given, reference, aliases)

    // variants: [meta, parquet]
    REFINE(CALL.out.reads, CALL.out.calls, pseudonyms, truths, reference, aliases)

    // model: safetensors; record: federation.json; ledger: the aggregator's decisions
    FEDERATE(REFINE.out.variants, AGREE_ON_INPUTS.out.sites)

    versions = AGREE_ON_INPUTS.out.versions.mix(CALL.out.versions, REFINE.out.versions, FEDERATE.out.versions)
    SCORE(
        REFINE.out.variants,
        CALL.out.calls,
        reference,
        FEDERATE.out.model,
        FEDERATE.out.record,
        FEDERATE.out.ledger,
        FEDERATE.out.certificate,
        versions,
    )

    workflow.onComplete = {
        if (workflow.success) {
            log.info("Scored VCFs: ${params.outdir}/scored/")
            log.info("Report:      ${params.outdir}/report.html")
        }
    }
}
