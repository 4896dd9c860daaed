include { word } from '../../shell'
include { words } from '../../shell'

// One sample in one part of the genome; `name` is the sample's, with the part's number where there are several.
process GATK4_HAPLOTYPECALLER {
    tag "${name}"
    label 'process_medium'
    container "cordon-gatk4:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam), path(bai), val(name), path(intervals)
    tuple path(fasta), path(fai), path(dict)
    val gvcf

    output:
    tuple val(meta), val(name), path("${name}.haplotypecaller${gvcf ? '.g' : ''}.vcf.gz"), path("${name}.haplotypecaller${gvcf ? '.g' : ''}.vcf.gz.tbi"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def java = task.ext.java_options ?: '-XX:-UsePerfData'
    def heap = Math.max(512, (task.memory.toMega() * 0.8) as int)
    def confidence = gvcf ? '--emit-ref-confidence GVCF' : ''
    def output = word("${name}.haplotypecaller${gvcf ? '.g' : ''}.vcf.gz")
    """
    gatk --java-options "-Xmx${heap}M ${java}" HaplotypeCaller \\
        --input ${bam} --reference ${fasta} --intervals ${intervals} --output ${output} \\
        --native-pair-hmm-threads ${task.cpus} --tmp-dir . ${confidence} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: \$(zgrep -o 'HaplotypeCaller.*Version="[^"]*"' ${output} | sed 's/.*Version="//; s/"//')
    END_VERSIONS
    """

    stub:
    def output = word("${name}.haplotypecaller${gvcf ? '.g' : ''}.vcf.gz")
    """
    echo | gzip > ${output}
    touch ${output}.tbi

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: stub
    END_VERSIONS
    """
}
