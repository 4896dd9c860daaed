include { word } from '../../shell'
include { words } from '../../shell'

// bcftools mpileup and call, as pysam carries them; `name` is the sample's, with the part's number where there are several.
process BCFTOOLS_CALL {
    tag "${name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam), path(bai), val(name), path(intervals)
    tuple path(fasta), path(fai), path(dict)

    output:
    tuple val(meta), val(name), path("${name}.bcftools.vcf.gz"), path("${name}.bcftools.vcf.gz.tbi"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    """
    bcftools_call.py \\
        --bam ${bam} --sample ${word(meta.id)} --reference ${fasta} --intervals ${intervals} ${args} \\
        --output ${word("${name}.bcftools.vcf.gz")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: \$(python3 -c "import pysam.version; print(pysam.version.__bcftools_version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${name}.bcftools.vcf.gz")} ${word("${name}.bcftools.vcf.gz.tbi")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        bcftools: stub
    END_VERSIONS
    """
}
