import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import nextflow.config.ast.ConfigAssignNode;
import nextflow.config.ast.ConfigBlockNode;
import nextflow.config.ast.ConfigNode;
import nextflow.config.ast.ConfigVisitorSupport;
import nextflow.config.control.ConfigParser;
import nextflow.script.ast.ScriptNode;
import nextflow.script.control.Compiler;
import nextflow.script.control.ScriptParser;
import org.codehaus.groovy.ast.CodeVisitorSupport;
import org.codehaus.groovy.ast.expr.ClosureExpression;
import org.codehaus.groovy.ast.expr.DeclarationExpression;
import org.codehaus.groovy.ast.expr.VariableExpression;
import org.codehaus.groovy.control.SourceUnit;
import org.codehaus.groovy.control.messages.Message;
import org.codehaus.groovy.control.messages.SyntaxErrorMessage;
import org.codehaus.groovy.control.messages.WarningMessage;

/**
 * The strict syntax, checked as `nextflow lint` does, with the warnings that only a language server shows.
 *
 * Usage: java -cp JARS Check.java PATH... (.nf and .config files, or folders of them). Prints
 * FILE:LINE:COLUMN: error|warning: MESSAGE for each, and ends with 1 if there is any, with 2 if there is no file.
 */
class Check {
    private final ScriptParser scripts = new ScriptParser();
    private final ConfigParser configs = new ConfigParser();
    private final Set<String> found = new TreeSet<>();

    public static void main(String[] arguments) throws IOException {
        var files = files(arguments);
        if (files.isEmpty()) {
            System.err.println("no .nf or .config file in " + Arrays.toString(arguments));
            System.exit(2);
        }
        var found = new Check().check(files);
        found.forEach(System.out::println);
        System.out.printf("strict syntax: %d files, %d errors and warnings%n", files.size(), found.size());
        System.exit(found.isEmpty() ? 0 : 1);
    }

    private static List<Path> files(String[] arguments) throws IOException {
        var found = new ArrayList<Path>();
        for (var argument : arguments) {
            try (Stream<Path> inside = Files.walk(Path.of(argument))) {
                inside.filter(path -> path.toString().matches(".*\\.(nf|config)")).sorted().forEach(found::add);
            }
        }
        return found;
    }

    private Set<String> check(List<Path> files) {
        for (var file : files) {
            if (file.toString().endsWith(".nf"))
                scripts.parse(file.toFile());
            else
                configs.parse(file.toFile());
        }
        scripts.analyze();
        configs.analyze();
        collect(scripts.compiler(), Set.of());
        collect(configs.compiler(), inputs());
        return found;
    }

    /** The names of all inputs of all processes. */
    private Set<String> inputs() {
        var names = new HashSet<String>();
        var visitor = new CodeVisitorSupport() {
            @Override
            public void visitVariableExpression(VariableExpression variable) {
                names.add(variable.getName());
            }
        };
        for (var source : scripts.compiler().getSources().values()) {
            if (source.getAST() instanceof ScriptNode script)
                script.getProcesses().forEach(process -> process.inputs.visit(visitor));
        }
        return names;
    }

    private void collect(Compiler compiler, Set<String> inputs) {
        for (var source : compiler.getSources().values()) {
            var wrong = new DynamicDirectives(source, inputs).wrongMessages();
            var messages = new ArrayList<Message>();
            var collector = source.getErrorCollector();
            if (collector.getErrors() != null)
                messages.addAll(collector.getErrors());
            if (collector.getWarnings() != null)
                messages.addAll(collector.getWarnings());
            messages.stream().map(Check::text).filter(text -> !wrong.contains(text))
                .forEach(text -> found.add(source.getName() + ":" + text));
        }
    }

    private static String text(Message message) {
        if (message instanceof SyntaxErrorMessage error) {
            var cause = error.getCause();
            return at(cause.getStartLine(), cause.getStartColumn(), "error", cause.getOriginalMessage());
        }
        if (message instanceof WarningMessage warning) {
            var place = warning.getContext();
            return at(place.getStartLine(), place.getStartColumn(), "warning", warning.getMessage());
        }
        return at(0, 0, "error", message.toString());
    }

    static String at(int line, int column, String kind, String message) {
        return line + ":" + column + ": " + kind + ": " + message;
    }
}

/**
 * What 25.04.0 wrongly says of a process's dynamic directives in a configuration: that the process's inputs, and what
 * `def` declares there, are not defined (mended by 25.04.5, nextflow-io/nextflow#6203, which Maven Central lacks).
 * Narrower than the mended parser, which lets any name pass there: a name must be an input of some process, or declared
 * in the same directive.
 */
class DynamicDirectives extends ConfigVisitorSupport {
    private final SourceUnit source;
    private final Set<String> inputs;
    private final Set<String> declared = new HashSet<>();
    private final Set<String> messages = new HashSet<>();
    private boolean inProcess;
    private int closures;

    DynamicDirectives(SourceUnit source, Set<String> inputs) {
        this.source = source;
        this.inputs = inputs;
    }

    Set<String> wrongMessages() {
        if (source.getAST() instanceof ConfigNode config)
            visit(config);
        return messages;
    }

    @Override
    protected SourceUnit getSourceUnit() {
        return source;
    }

    @Override
    public void visitConfigBlock(ConfigBlockNode block) {
        var outside = inProcess;
        inProcess |= "process".equals(block.name);
        super.visitConfigBlock(block);
        inProcess = outside;
    }

    @Override
    public void visitConfigAssign(ConfigAssignNode assignment) {
        var outside = inProcess;
        inProcess |= "process".equals(assignment.names.get(0));
        declared.clear();
        super.visitConfigAssign(assignment);
        inProcess = outside;
    }

    @Override
    public void visitClosureExpression(ClosureExpression closure) {
        closures++;
        super.visitClosureExpression(closure);
        closures--;
    }

    @Override
    public void visitDeclarationExpression(DeclarationExpression declaration) {
        if (!declaration.isMultipleAssignmentDeclaration())
            declared.add(declaration.getVariableExpression().getName());
        super.visitDeclarationExpression(declaration);
    }

    @Override
    public void visitVariableExpression(VariableExpression variable) {
        var name = variable.getName();
        if (inProcess && closures > 0 && (inputs.contains(name) || declared.contains(name))) {
            for (var message : List.of("` is not defined", "` was assigned but not declared"))
                messages.add(Check.at(variable.getLineNumber(), variable.getColumnNumber(), "error", "`" + name + message));
        }
    }
}
