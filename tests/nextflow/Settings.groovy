// What Nextflow gives each process of each configuration, by its own classes: one JVM for all of them, where
// `nextflow config` takes one each and shows selectors instead of what comes of them.
//
// usage: Settings.groovy ASKED.json FOUND.json
// ASKED: project, launch (folders), processes {name: labels}, configurations {name: {profile, parameters, files}}
// FOUND: {configuration: {process: {setting: value}}}; cpus, memory, time and clusterOptions are lists, by attempt from 1 to 3; what else
// is a closure is given as its text. '' is the whole configuration but for its selectors.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.nio.file.Path
import ch.qos.logback.classic.Level
import nextflow.cli.CliOptions
import nextflow.cli.CmdRun
import nextflow.config.ConfigBuilder
import nextflow.processor.TaskConfig
import nextflow.script.ProcessConfig
import org.slf4j.LoggerFactory

Map build(Map asked, Map one, boolean text) {
    def run = new CmdRun(profile: one.profile, runConfig: one.files ?: null)
    (one.parameters ?: [:]).each { name, value -> run.params.put(name, value) }
    new ConfigBuilder()
        .setOptions(new CliOptions())
        .setBaseDir(Path.of(asked.project))
        .setCurrentDir(Path.of(asked.launch))
        .setCmdRun(run)
        .setShowClosures(text)
        .buildConfigObject()
}

// The process' own settings of all that `configuration` has for it.
ProcessConfig settings(Map configuration, String name, List labels) {
    def found = new ProcessConfig([label: labels])
    found.applyConfig(configuration.process, name, name, name)
    found
}

Map resources(Map configuration, ProcessConfig found) {
    def attempts = (1..3).collect { attempt ->
        def task = found.createTaskConfig()
        task.put('attempt', attempt)
        task.setContext([task: task, params: configuration.params])
        [
            cpus: task.getCpus(), memory: task.getMemory()?.toString(), time: task.getTime()?.toString(),
            clusterOptions: task.getClusterOptionsAsString() ?: '',
        ]
    }
    ['cpus', 'memory', 'time', 'clusterOptions'].collectEntries { name -> [name, attempts*.get(name)] }
}

// `value` as JSON has it: closures as their text, sizes and durations as they are written.
Object plain(Object value) {
    if (value instanceof Map) {
        return value.findAll { key, _ -> !(key ==~ /with(Label|Name):.*/) }.collectEntries { key, one -> [key, plain(one)] }
    }
    value instanceof Collection ? value.collect { one -> plain(one) } : value instanceof Number || value instanceof Boolean ? value : value?.toString()
}

LoggerFactory.getLogger('ROOT').setLevel(Level.WARN)
def asked = new JsonSlurper().parse(new File(args[0]))
def found = asked.configurations.collectEntries { title, one ->
    def lively = build(asked, one, false)
    def shown = build(asked, one, true)
    def all = asked.processes.collectEntries { name, labels ->
        [name, plain(settings(shown, name, labels)) + resources(lively, settings(lively, name, labels))]
    }
    [title, all + ['': plain(shown)]]
}
new File(args[1]).text = JsonOutput.toJson(found)
