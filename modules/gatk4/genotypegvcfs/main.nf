include { word } from '../../shell'
include { words } from '../../shell'

// A sample's gVCF of one part as calls with genotypes and annotations.
process GATK4_GENOTYPEGVCFS {
    tag "${name}"
    label 'process_low'
    container "cordon-gatk4:${workflow.manifest.version}"

    input:
    tuple val(meta), val(name), path(gvcf), path(index)
    tuple path(fasta), path(fai), path(dict)

    output:
    tuple val(meta), val(name), path("${name}.haplotypecaller.vcf.gz"), path("${name}.haplotypecaller.vcf.gz.tbi"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def java = task.ext.java_options ?: '-XX:-UsePerfData'
    def heap = Math.max(512, (task.memory.toMega() * 0.8) as int)
    """
    gatk --java-options "-Xmx${heap}M ${java}" GenotypeGVCFs \\
        --variant ${gvcf} --reference ${fasta} --output ${word("${name}.haplotypecaller.vcf.gz")} --tmp-dir . ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: \$(zgrep -o 'GenotypeGVCFs.*Version="[^"]*"' ${word("${name}.haplotypecaller.vcf.gz")} | sed 's/.*Version="//; s/"//')
    END_VERSIONS
    """

    stub:
    """
    echo | gzip > ${word("${name}.haplotypecaller.vcf.gz")}
    touch ${word("${name}.haplotypecaller.vcf.gz.tbi")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        gatk4: stub
    END_VERSIONS
    """
}
