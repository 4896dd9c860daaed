include { GATHER_CALLS } from '../modules/gather_calls/main'

workflow GATHER {
    take:
    calls // [meta, suffix, name, vcf, index]: one of each part
    parts // number of parts

    main:
    // [meta, suffix, vcfs, indices] in genome order, as soon as a sample's last part is there
    gathered = calls
        .combine(parts)
        .map { meta, suffix, name, vcf, index, size -> [groupKey([meta, suffix], size), [name, vcf, index]] }
        .groupTuple()
        .map { key, group -> key.getGroupTarget() + group.sort { part -> part[0] }.transpose().drop(1) }
        .branch { _meta, _suffix, vcfs, _indices ->
            whole: vcfs.size() == 1
            split: true
        }
    GATHER_CALLS(gathered.split)

    emit:
    calls = GATHER_CALLS.out.calls.mix(gathered.whole.map { meta, suffix, vcfs, indices -> [meta, suffix, vcfs[0], indices[0]] }) // [meta, suffix, vcf, index]
    versions = GATHER_CALLS.out.versions
}
