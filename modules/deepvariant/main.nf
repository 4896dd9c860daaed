include { word } from '../shell'
include { words } from '../shell'

// Written to the documented command line of DeepVariant 1.9 and 1.10; the tests run it against a double
// (tests/doubles/deepvariant), never against the real image. It splits the work into shards itself.
process DEEPVARIANT {
    tag "${meta.id}"
    label 'process_high'
    container 'docker.io/google/deepvariant:1.10.0'

    input:
    tuple val(meta), path(bam), path(bai)
    tuple path(fasta), path(fai), path(dict)
    path intervals
    val model_type
    val gvcf

    output:
    tuple val(meta), path("${meta.id}.deepvariant.vcf.gz"), path("${meta.id}.deepvariant.vcf.gz.tbi"), emit: calls
    tuple val(meta), path("${meta.id}.deepvariant.g.vcf.gz"), path("${meta.id}.deepvariant.g.vcf.gz.tbi"), emit: gvcf, optional: true
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def command = task.ext.command ?: '/opt/deepvariant/bin/run_deepvariant'
    def confidence = gvcf ? word("--output_gvcf=${meta.id}.deepvariant.g.vcf.gz") : ''
    """
    ${command} \\
        ${word("--model_type=${model_type}")} --ref=${fasta} --reads=${bam} ${word("--sample_name=${meta.id}")} \\
        --regions=${intervals} ${word("--output_vcf=${meta.id}.deepvariant.vcf.gz")} ${confidence} \\
        --num_shards=${task.cpus} --intermediate_results_dir=intermediate ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepvariant: \$(${command} --version | sed 's/.*version //')
    END_VERSIONS
    """

    stub:
    def confidence = gvcf ? word("${meta.id}.deepvariant.g.vcf.gz") : ''
    """
    for file in ${word("${meta.id}.deepvariant.vcf.gz")} ${confidence}; do
        echo | gzip > \$file
        touch \$file.tbi
    done

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepvariant: stub
    END_VERSIONS
    """
}
