process GATK4_HAPLOTYPECALLER {
    tag "${meta.id}"
    label 'process_medium'
    container "cordon-gatk4:${workflow.manifest.version}"

    input:
    tuple val(meta), path(bam), path(bai)
    tuple path(fasta), path(fai), path(dict)
    path intervals

    output:
    tuple val(meta), val('haplotypecaller'), path("${meta.id}.haplotypecaller.vcf.gz"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def java = task.ext.java_options ?: '-XX:-UsePerfData'
    def heap = Math.max(512, (task.memory.toMega() * 0.8) as int)
    def regions = intervals ? "--intervals ${intervals}" : ''
    """
    gatk --java-options "-Xmx${heap}M ${java}" HaplotypeCaller \\
        --input ${bam} --reference ${fasta} --output ${meta.id}.haplotypecaller.vcf.gz \\
        --native-pair-hmm-threads ${task.cpus} --tmp-dir . ${regions} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: \$(zgrep -o 'HaplotypeCaller.*Version="[^"]*"' ${meta.id}.haplotypecaller.vcf.gz | sed 's/.*Version="//; s/"//')
    END_VERSIONS
    """

    stub:
    """
    echo | gzip > ${meta.id}.haplotypecaller.vcf.gz

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: stub
    END_VERSIONS
    """
}
