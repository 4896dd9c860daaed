#!/usr/bin/env nextflow

include { AGREE_ON_INPUTS } from './subworkflows/inputs'
include { CALL } from './subworkflows/call'
include { REFINE } from './subworkflows/refine'
include { FEDERATE } from './subworkflows/federate'
include { SCORE } from './subworkflows/score'
include { help } from './subworkflows/help'

workflow CORDON {
    take:
    parameters // of the run, as nextflow_schema.json names them

    main:
    // samples: [meta, names, bam]; given: [meta, caller, names, vcf]; truths: [meta, names, truth vcf, confident bed],
    // where names is JSON of the sample's name in the files; pseudonyms: [meta, JSON of patient and sample]
    // private_errors: folder of errors that name somebody, or '' where all may be told; reference: [fasta, fai, dict]; aliases: table of contig names or []
    AGREE_ON_INPUTS(parameters)
    samples = AGREE_ON_INPUTS.out.samples
    given = AGREE_ON_INPUTS.out.given
    pseudonyms = AGREE_ON_INPUTS.out.pseudonyms
    truths = AGREE_ON_INPUTS.out.truths
    reference = AGREE_ON_INPUTS.out.reference
    aliases = AGREE_ON_INPUTS.out.aliases
    private_errors = AGREE_ON_INPUTS.out.private_errors

    // reads: [meta, bam, bai]; calls: [meta, callers, vcfs, indices]
    CALL(samples, given, reference, aliases, private_errors, parameters)

    // variants: [meta, parquet]
    REFINE(CALL.out.reads, CALL.out.calls, pseudonyms, truths, reference, aliases, private_errors, parameters)

    // model: safetensors; record: federation.json; ledger: the aggregator's decisions
    FEDERATE(REFINE.out.variants, AGREE_ON_INPUTS.out.sites, parameters)

    versions = AGREE_ON_INPUTS.out.versions.mix(CALL.out.versions, REFINE.out.versions, FEDERATE.out.versions)
    SCORE(
        REFINE.out.variants,
        CALL.out.calls,
        CALL.out.counts,
        CALL.out.duplicates,
        reference,
        FEDERATE.out.model,
        FEDERATE.out.record,
        FEDERATE.out.ledger,
        FEDERATE.out.certificate,
        FEDERATE.out.spent,
        AGREE_ON_INPUTS.out.sites,
        versions,
        parameters,
    )
}

workflow {
    main:
    if (params.help) {
        println(help(file("${projectDir}/nextflow_schema.json"), params.help, params))
    }
    else {
        CORDON(params)
    }

    workflow.onComplete = {
        if (workflow.success && !params.help) {
            log.info("Scored VCFs: ${params.outdir}/scored/")
            log.info("Report:      ${params.outdir}/report.html")
        }
    }
}
