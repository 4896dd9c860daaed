include { word } from '../shell'
include { words } from '../shell'

process SCORE_VARIANTS {
    tag "${part}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(part), val(names), val(calls), path(variants), path(vcfs), path(indices), path(calibration)
    tuple path(fasta), path(fai), path(dict)
    path model

    output:
    tuple val(part), path('*.scored.vcf.gz'), path('*.scored.vcf.gz.tbi'), emit: vcf
    tuple val(part), path('*.scored.parquet'), emit: table
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def tables = variants instanceof List ? variants : [variants]
    def rows = [names, tables, calls].transpose().collect { name, table, vcf -> word("${name},${table},${vcf}") }.join(' ')
    """
    printf '%s\\n' sample,variants,calls ${rows} > samples.csv

    score_variants.py \\
        --model ${model} --calibration ${calibration} --samples samples.csv --reference ${fasta} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    for sample in ${names.collect { name -> word(name) }.join(' ')}; do
        touch "\$sample.scored.vcf.gz" "\$sample.scored.vcf.gz.tbi" "\$sample.scored.parquet"
    done

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
