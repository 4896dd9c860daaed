// A value as one word of a shell's script, whatever it holds.
def word(value) {
    "'" + "${value}".replace("'", "'\\''") + "'"
}

// What a configuration adds to a command (ext.args): its own text as it stands there, and each value in it as one word.
def words(given) {
    def parts = given instanceof List ? given : [given]
    parts.findAll { part -> part }.collect { part -> part instanceof GString ? with_words(part) : part }.join(' ')
}

// What a task may be called: Nextflow writes a tag into the script that starts the task, as it is.
def plain(tag) {
    "${tag}".replaceAll('[^A-Za-z0-9_.,:@+ -]', '_')
}

def with_words(text) {
    def values = text.values.collect { value -> word(value) } + ['']
    [text.strings.toList(), values].transpose().flatten().join('')
}
