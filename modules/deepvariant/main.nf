// Written to the documented command line of DeepVariant 1.9; its image could not be run where this was built.
process DEEPVARIANT {
    tag "${meta.id}"
    label 'process_high'
    container 'docker.io/google/deepvariant:1.9.0'

    input:
    tuple val(meta), path(bam), path(bai)
    tuple path(fasta), path(fai), path(dict)
    path intervals
    val model_type

    output:
    tuple val(meta), val('deepvariant'), path("${meta.id}.deepvariant.vcf.gz"), emit: calls
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = task.ext.args ?: ''
    def regions = intervals ? "--regions=${intervals}" : ''
    """
    /opt/deepvariant/bin/run_deepvariant \\
        --model_type=${model_type} --ref=${fasta} --reads=${bam} --sample_name=${meta.id} \\
        --output_vcf=${meta.id}.deepvariant.vcf.gz --num_shards=${task.cpus} \\
        --intermediate_results_dir=intermediate ${regions} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepvariant: \$(/opt/deepvariant/bin/run_deepvariant --version | sed 's/.*version //')
    END_VERSIONS
    """

    stub:
    """
    echo | gzip > ${meta.id}.deepvariant.vcf.gz

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepvariant: stub
    END_VERSIONS
    """
}
