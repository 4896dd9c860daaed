include { word } from '../shell'
include { words } from '../shell'

// A public VCF of sites, written as the candidates are, so that alleles can be looked up in it.
process NORMALISE_RESOURCE {
    tag "${name}"
    label 'process_single'
    container "cordon-python:${workflow.manifest.version}"

    input:
    tuple val(name), path(vcf, stageAs: 'given/*')
    tuple path(fasta), path(fai), path(dict)
    path aliases

    output:
    tuple val(name), path("${name}.normalised.vcf.gz"), path("${name}.normalised.vcf.gz.tbi"), emit: sites
    path "${name}.summary.json", emit: summary
    path 'versions.yml', topic: versions, emit: versions

    script:
    def args = words(task.ext.args)
    def renamed = aliases ? "--aliases ${aliases}" : ''
    """
    normalise_variants.py \\
        --vcf ${vcf} --sites_only --reference ${fasta} ${renamed} ${args} \\
        --summary ${word("${name}.summary.json")} --output ${word("${name}.normalised.vcf.gz")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """

    stub:
    """
    touch ${word("${name}.normalised.vcf.gz")} ${word("${name}.normalised.vcf.gz.tbi")} ${word("${name}.summary.json")}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        cordon: \$(python3 -c "import cordon; print(cordon.__version__)")
    END_VERSIONS
    """
}
