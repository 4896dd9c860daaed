// What `--help` prints: the parameters of nextflow_schema.json by group, with what they are if nobody says otherwise. The
// schema has no default where a profile sets one: a launch form would take it back.
// `what` is true for those that everyone may need, 'full' for all, or the name of one to be told all of it.
def help(schema, what, parameters) {
    def groups = new groovy.json.JsonSlurper().parse(schema).get('$defs').values()
    def every = groups.collectMany { group -> group.properties.entrySet() }.collectEntries { entry -> [entry.key, entry.value] }
    def asked = what.toString()
    if (every.containsKey(asked)) {
        return help_of_one(asked, every[asked], parameters)
    }
    if (!(asked in ['true', 'full'])) {
        error("--help ${asked}: is no parameter of this pipeline. --help full lists all.")
    }
    def width = every.keySet().collect { name -> name.size() }.max()
    def sections = groups.collect { group -> help_of_group(group, width, asked == 'full', parameters) }.findAll { section -> section }
    def usage = 'nextflow run . -profile local --input samplesheet.csv --sites sites.csv --reference genome.fasta'
    def hidden = asked == 'full' ? [] : ['Expert parameters: --help full. All of one: --help NAME.']
    ([usage] + sections + hidden).join('\n\n')
}

def help_of_group(group, width, full, parameters) {
    def shown = group.properties.findAll { _name, rule -> full || !rule.hidden }
    def lines = shown.collect { name, rule -> "  --${name.padRight(width)}  ${rule.description}${help_of_default(name, rule, parameters)}" }
    lines ? "${group.title}: ${group.description}\n${lines.join('\n')}" : ''
}

def help_of_one(name, rule, parameters) {
    def among = rule['enum'] ? "\n  One of: ${rule['enum'].join(', ')}" : ''
    "--${name} (${rule.type})${help_of_default(name, rule, parameters)}\n  ${rule.description}\n  ${rule.help_text}${among}"
}

def help_of_default(name, rule, parameters) {
    def set = rule.containsKey('default') ? rule.default : (name in ['help', 'state_dir'] ? null : parameters[name])
    set == null ? '' : " [${set}]"
}
