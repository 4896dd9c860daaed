include { word } from '../shell'
include { words } from '../shell'

// A caller's parts, VCF or gVCF, put together in genome order (bcftools concat, as pysam carries it).
process GATHER_CALLS {
    tag "${meta.id} ${suffix}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), val(suffix), path(vcfs, stageAs: 'parts/*'), path(indices, stageAs: 'parts/*')

    output:
    tuple val(meta), val(suffix), path("${meta.id}.${suffix}"), path("${meta.id}.${suffix}.tbi"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    """
    gather_calls.py ${vcfs.collect { vcf -> "--vcf ${vcf}" }.join(' ')} ${args} --output ${word("${meta.id}.${suffix}")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: \$(python3 -c "import pysam.version; print(pysam.version.__bcftools_version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${meta.id}.${suffix}")} ${word("${meta.id}.${suffix}.tbi")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: stub
    END_VERSIONS
    """
}
